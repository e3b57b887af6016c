/** JSON text that goes into an answer as it is, because parsing it would lose digits, order or escapes. */
export class RawJson {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

/** Like `JSON.stringify` for plain values, with the text of every `RawJson` in its place. */
export function stringifyRaw(value: unknown): string {
  if (value instanceof RawJson) return value.text;
  if (Array.isArray(value)) return `[${value.map(stringifyRaw).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const members: string[] = [];
  for (const [key, member] of Object.entries(value)) {
    if (member !== undefined) members.push(`${JSON.stringify(key)}:${stringifyRaw(member)}`);
  }
  return `{${members.join(",")}}`;
}
