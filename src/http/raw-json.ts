/** JSON text that goes into an answer as it is, because parsing it would lose digits, order or escapes. */
export class RawJson {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }

  /** For `stringifyRaw`, which learns that the engine's own way has met one. */
  toJSON(): null {
    met = true;
    return null;
  }
}

let met = false;

/** Like `JSON.stringify` for plain values, with the text of every `RawJson` in its place. */
export function stringifyRaw(value: unknown): string {
  met = false;
  // Several times as fast as the walk, and most answers have nothing that needs it.
  const text = JSON.stringify(value);
  return met ? walk(value) : text;
}

function walk(value: unknown): string {
  if (value instanceof RawJson) return value.text;
  if (Array.isArray(value)) return `[${value.map(walk).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const members: string[] = [];
  for (const [key, member] of Object.entries(value)) {
    if (member !== undefined) members.push(`${JSON.stringify(key)}:${walk(member)}`);
  }
  return `{${members.join(",")}}`;
}
