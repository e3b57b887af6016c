/** A piece of a URL template: text, or what is put in its place. */
export type TemplatePart = { text: string } | { name: string };

/**
 * The parts of a template such as `{path}/{id}?rev=1` or `/projects/{/projectId}/activities`.
 *
 * Names in braces are those that the place where the template stands knows; one that begins with `/` is a JSON Pointer
 * into the record in the upstream's shape.
 */
export function templateParts(template: string): TemplatePart[] {
  return template
    .split(/(\{[^{}]*\})/)
    .filter((piece) => piece !== "")
    .map((piece) => (piece.startsWith("{") ? { name: piece.slice(1, -1) } : { text: piece }));
}

/** What stands in braces in a template, each once, in its order. */
export function namesIn(template: string): string[] {
  const names = templateParts(template).flatMap((part) => ("name" in part ? [part.name] : []));
  return [...new Set(names)];
}

/** The template with whole templates in the places of some names: `{path}`, `{item}`. */
export function expanded(template: string, by: Readonly<Record<string, string>>): string {
  return template.replace(/\{([^{}]*)\}/g, (whole, name: string) => by[name] ?? whole);
}

export function isPointer(name: string): boolean {
  return name.startsWith("/");
}

/** Where a record is, with `{path}` written out: its placeholders are `{id}` and pointers. */
export function itemTemplate({
  path,
  item = "{path}/{id}",
}: {
  path: string;
  item?: string | undefined;
}): string {
  return expanded(item, { path });
}
