/** A JSON number by its digits, which a double may not hold. */
export class Digits {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

export type Value = string | boolean | null | Digits | Value[] | { [name: string]: Value };

type Reviver = (this: unknown, key: string, value: unknown, context: { source?: string }) => unknown;

const keepDigits: Reviver = (_key, value, { source = "" }) =>
  typeof value === "number" ? new Digits(source) : value;

/** The members of a JSON object, its numbers with all their digits. */
export function membersOf(text: string): Map<string, Value> {
  const object = JSON.parse(text, keepDigits as Parameters<typeof JSON.parse>[1]) as Record<string, Value>;
  return new Map(Object.entries(object));
}

/** JSON text of an object of which each value is JSON text already. */
export function toObjectText(members: readonly (readonly [name: string, json: string])[]): string {
  return `{${members.map(([name, json]) => `${JSON.stringify(name)}:${json}`).join(",")}}`;
}

/** An xsd:decimal as a JSON number of the same value: JSON wants a digit on both sides of the point, and no plus sign. */
export function toJsonNumber(decimal: string): string | undefined {
  const match = /^\s*([+-]?)0*(\d*)(?:\.(\d*))?\s*$/.exec(decimal);
  if (!match || !/\d/.test(decimal)) return undefined;
  const [, sign = "", whole = "", fraction = ""] = match;
  return `${sign === "-" ? "-" : ""}${whole === "" ? "0" : whole}${fraction === "" ? "" : `.${fraction}`}`;
}
