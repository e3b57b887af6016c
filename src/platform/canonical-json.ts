/**
 * One text for all JSON texts that mean the same: no white space, keys sorted by UTF-16 code unit, strings unescaped and
 * escaped again in one way, numbers as their exact decimal. Repeated keys are kept, so it never calls two texts equal that
 * a reader could tell apart.
 *
 * Phones choose the text: the time it takes grows with its length, and recursion ends at `depthMax`. The text has to be
 * one that `JSON.parse` accepts.
 */

import { endOfValue } from "./json-text.ts";

const QUOTE = 0x22;
const COMMA = 0x2c;
const MINUS = 0x2d;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;
/** Only null begins with it. */
const LETTER_N = 0x6e;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

/** The canonical text of a value. */
export function canonicalJson(text: string): string {
  const reader = new CanonicalReader(text, Infinity);
  const start = reader.at;
  return reader.value() || text.slice(start, reader.at);
}

export interface CanonicalObject {
  /** The offset after the object. */
  end: number;
  /** Undefined when it is nested more deeply than was allowed. */
  canonical: string | undefined;
}

/**
 * Reads objects that stand in one text, from front to back: gives the canonical text of the one that begins at an offset,
 * with the members that `keep` names and that are not null.
 *
 * @param depthMax how deeply an object may be nested, itself included.
 */
export function canonicalReader(
  text: string,
  { keep, depthMax }: { keep: ReadonlySet<string>; depthMax: number },
): (start: number) => CanonicalObject {
  const reader = new CanonicalReader(text, depthMax);
  return (start) => {
    reader.at = start;
    const canonical = reader.object(keep);
    return { end: reader.at, canonical };
  };
}

/** The text of a value is canonical as it stands. */
const AS_IT_STANDS = "";

/**
 * Goes through a text once. What its methods return is `AS_IT_STANDS`, so that most text is never copied; or canonical
 * text; or undefined for what is nested too deeply.
 */
class CanonicalReader {
  at: number;
  readonly #text: string;
  #depthLeft: number;
  /** The offset of the next backslash: a string that ends before it has no escapes. */
  #backslash: number;

  constructor(text: string, depthMax: number) {
    this.#text = text;
    this.#depthLeft = depthMax;
    this.at = 0;
    this.#backslash = -1;
    this.#skipSpace();
  }

  value(): string | undefined {
    switch (this.#text.charCodeAt(this.at)) {
      case QUOTE:
        return this.#string();
      case OPEN_BRACE:
        return this.object();
      case OPEN_BRACKET:
        return this.#array();
      default:
        return this.#scalar();
    }
  }

  object(keep?: ReadonlySet<string>): string | undefined {
    if (this.#depthLeft-- <= 0) return this.#passOver();
    const keys: string[] = [];
    const members: string[] = [];
    let isWhole = true;
    this.#open();
    while (this.#text.charCodeAt(this.at) !== CLOSE_BRACE) {
      const start = this.at;
      const written = this.#string();
      const key = written === AS_IT_STANDS ? this.#text.slice(start + 1, this.at - 1) : unquote(written);
      const colon = this.at;
      this.#skipSpace();
      this.#open();
      const valueStart = this.at;
      const value = this.value();
      const isKept = keep === undefined || (keep.has(key) && this.#text.charCodeAt(valueStart) !== LETTER_N);
      if (value === undefined) isWhole = false;
      else if (isKept) {
        const isAsItStands = value === AS_IT_STANDS && written === AS_IT_STANDS && valueStart === colon + 1;
        keys.push(key);
        members.push(
          isAsItStands
            ? this.#text.slice(start, this.at)
            : `${written || this.#text.slice(start, colon)}:${value || this.#text.slice(valueStart, this.at)}`,
        );
      }
      this.#nextMember();
    }
    this.at++;
    this.#depthLeft++;
    return isWhole ? `{${sortedBy(keys, members).join(",")}}` : undefined;
  }

  #array(): string | undefined {
    if (this.#depthLeft-- <= 0) return this.#passOver();
    const elements: string[] = [];
    let isWhole = true;
    this.#open();
    while (this.#text.charCodeAt(this.at) !== CLOSE_BRACKET) {
      const start = this.at;
      const value = this.value();
      if (value === undefined) isWhole = false;
      else elements.push(value || this.#text.slice(start, this.at));
      this.#nextMember();
    }
    this.at++;
    this.#depthLeft++;
    return isWhole ? `[${elements.join(",")}]` : undefined;
  }

  #string(): string {
    const start = this.at;
    const end = this.#text.indexOf('"', start + 1);
    if (this.#backslash < start) this.#backslash = nextBackslash(this.#text, start);
    if (this.#backslash > end) {
      this.at = end + 1;
      return AS_IT_STANDS;
    }
    this.at = endOfValue(this.#text, start);
    return JSON.stringify(JSON.parse(this.#text.slice(start, this.at)));
  }

  #scalar(): string {
    const start = this.at;
    while (!isDelimiter(this.#text.charCodeAt(this.at))) this.at++;
    const first = this.#text.charCodeAt(start);
    const isNumber = first === MINUS || (first >= DIGIT_0 && first <= DIGIT_9);
    return isNumber ? canonicalNumber(this.#text.slice(start, this.at)) : AS_IT_STANDS;
  }

  /** Passes over a container without recursion. */
  #passOver(): undefined {
    this.#depthLeft++;
    this.at = endOfValue(this.#text, this.at);
  }

  /** Passes over a brace, a bracket or a colon. */
  #open(): void {
    this.at++;
    this.#skipSpace();
  }

  #nextMember(): void {
    this.#skipSpace();
    if (this.#text.charCodeAt(this.at) === COMMA) this.#open();
  }

  #skipSpace(): void {
    while (this.#text.charCodeAt(this.at) <= 0x20) this.at++;
  }
}

/** Longer lists are left to the engine, whose sort does not take quadratic time. */
const insertionMax = 16;

/** The members in the order of their keys; those of equal keys stay in theirs. Both lists may be changed. */
function sortedBy(keys: string[], members: string[]): string[] {
  if (keys.length > insertionMax) {
    const order = keys.map((_, index) => index);
    order.sort((a, b) => compare(keys[a] ?? "", keys[b] ?? ""));
    return order.map((index) => members[index] ?? "");
  }
  for (let next = 1; next < keys.length; next++) {
    const key = keys[next] ?? "";
    const member = members[next] ?? "";
    let place = next;
    for (; place > 0 && (keys[place - 1] ?? "") > key; place--) {
      keys[place] = keys[place - 1] ?? "";
      members[place] = members[place - 1] ?? "";
    }
    keys[place] = key;
    members[place] = member;
  }
  return members;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** More would not fit a double exactly; nobody means such a number. */
const exponentDigitsMax = 15;

/**
 * One spelling for a number: `1`, `1.0`, `10e-1` and `0.1E1` are one, and no digit is lost. It is that of JavaScript
 * where a double says the same, and digits with an exponent elsewhere. Only an exponent of more than 15 digits keeps its
 * spelling.
 */
export function canonicalNumber(token: string): string {
  const double = String(Number(token));
  if (double === token) return token;
  const exact = exactDecimal(token);
  return exact === exactDecimal(double) ? double : exact;
}

function exactDecimal(token: string): string {
  const [, sign = "", whole = "", fraction = "", exponent = "0"] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(token) ?? [];
  const digits = (whole + fraction).replace(/^0+/, "");
  const significant = withoutTrailingZeros(digits);
  if (significant === "") return whole === "" ? token : "0";
  if (exponent.length > exponentDigitsMax) return token;
  const power = Number(exponent) - fraction.length + digits.length - significant.length;
  return power === 0 ? sign + significant : `${sign}${significant}e${power}`;
}

/** By hand: the pattern `0+$` takes quadratic time on digits full of zeros. */
function withoutTrailingZeros(digits: string): string {
  let end = digits.length;
  while (end > 0 && digits.charCodeAt(end - 1) === 0x30) end--;
  return digits.slice(0, end);
}

function unquote(written: string): string {
  return JSON.parse(written) as string;
}

function nextBackslash(text: string, start: number): number {
  const found = text.indexOf("\\", start);
  return found === -1 ? Infinity : found;
}

function isDelimiter(code: number): boolean {
  // The end of the text gives NaN.
  return !(code > 0x20) || code === COMMA || code === CLOSE_BRACE || code === CLOSE_BRACKET;
}
