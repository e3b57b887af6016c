import { randomUUID } from "node:crypto";

/** JSON text that goes into an answer as it is, because parsing it would lose digits, order or escapes. */
export class RawJson {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }

  /** For `stringifyRaw`: a mark, whose place the text takes. */
  toJSON(): string | null {
    if (!met) return null;
    met.push(this.text);
    return mark;
  }
}

/** It never leaves the process, so nothing that was sent to us holds it. */
const mark = `raw:${randomUUID()}`;
/** The texts that are met while an answer is written. */
let met: string[] | undefined;

/** Like `JSON.stringify` for plain values, with the text of every `RawJson` in its place. */
export function stringifyRaw(value: unknown): string {
  const texts: string[] = [];
  met = texts;
  try {
    const [first = "", ...rest] = JSON.stringify(value).split(`"${mark}"`);
    return rest.reduce((text, part, index) => text + (texts[index] ?? "") + part, first);
  } finally {
    met = undefined;
  }
}
