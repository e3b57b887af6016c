import { parseDocument, visit, type Scalar } from "yaml";

const placeholder = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g;
const masked = /\uE000\uE001([A-Za-z_][A-Za-z0-9_]*)\uE002/g;

/**
 * Hides `${VAR}` from the YAML parser, which would read its braces as a map inside `{ }`. The text keeps its length, so
 * positions stay true. The private-use characters that stand for the braces mean nothing elsewhere in YAML.
 */
export function maskPlaceholders(text: string): string {
  return text.replace(placeholder, "\uE000\uE001$1\uE002");
}

/** Shows masked placeholders again, as they were written. */
export function unmaskPlaceholders(text: string): string {
  return text.replace(masked, "${$1}");
}

/** Puts the variables' values in place of masked placeholders; those without a value stay as they were written. */
export function substitute(text: string, env: NodeJS.ProcessEnv): string {
  return text.replace(masked, (_whole, name: string) => valueOf(name, env) ?? `\${${name}}`);
}

/** A variable's value. An empty one counts as unset. */
export function valueOf(name: string, env: NodeJS.ProcessEnv): string | undefined {
  const value = Object.hasOwn(env, name) ? env[name] : undefined;
  return value === "" ? undefined : value;
}

/** The placeholders in a piece of masked text and where each begins. */
export function placeholdersIn(text: string): { name: string; offset: number }[] {
  return [...text.matchAll(masked)].map((match) => ({ name: match[1] ?? "", offset: match.index }));
}

/** The variables that a configuration takes from the environment; those named in comments are not among them. */
export function variablesOf(text: string): string[] {
  const names = new Set<string>();
  const source = parseDocument(maskPlaceholders(text), { prettyErrors: false, logLevel: "error" });
  visit(source, {
    Scalar: (_key, { value }: Scalar) => {
      if (typeof value === "string") for (const { name } of placeholdersIn(value)) names.add(name);
    },
  });
  return [...names];
}

const secretCharsMin = 4;

/** Writes `${VAR}` in the place of what the configuration takes from the environment. */
export function hidingVariables(configText: string, env: NodeJS.ProcessEnv): (text: string) => string {
  const secrets = variablesOf(configText)
    .flatMap((name): [string, string][] => (env[name] ? [[name, env[name]]] : []))
    .filter(([, value]) => value.length >= secretCharsMin)
    .toSorted(([, a], [, b]) => b.length - a.length);
  return (text) =>
    secrets.reduce(
      (shown, [name, value]) =>
        formsOf(value).reduce((done, form) => done.replaceAll(form, () => `\${${name}}`), shown),
      text,
    );
}

/** As it stands in text, in a URL, in JSON and in XML. */
function formsOf(value: string): string[] {
  const xml = value.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const forms = [value, encodeURIComponent(value), JSON.stringify(value).slice(1, -1), xml];
  return [...new Set([...forms, xml.replaceAll('"', "&quot;")])];
}
