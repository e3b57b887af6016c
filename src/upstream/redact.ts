/**
 * Redaction of upstreams' answers, for evidence that people read. What is wrong stays, what the record holds goes:
 *
 * - in JSON, the values of members that tell about a failure (`message`, `code`, whatever is under `errors` …) stay,
 *   all other values become `…`; names of members stay;
 * - everywhere, e-mail addresses and runs of six digits or more (phone, person and account numbers, dates) become `…`;
 * - `withoutValues` also takes out what the mutation itself had sent.
 */

const mark = "…";
const charsMax = 500;
/** More is cut off before it is looked at. */
const bytesMax = 64 * 1024;

/** The start of an answer without the record that it may echo. */
export function excerptOf(body: Buffer): string {
  const text = new TextDecoder().decode(body.subarray(0, bytesMax)).trim();
  return masked(/^[{["]/.test(text) ? withoutRecord(text) : text);
}

/** The text without the values of `data` (JSON text) that stand in it. */
export function withoutValues(text: string, data: string): string {
  const values = new Set<string>();
  collectLeaves(JSON.parse(data), values);
  const found = [...values].filter((value) => text.includes(value));
  return found.toSorted((a, b) => b.length - a.length).reduce(withoutValue, text);
}

/** Inside a longer word or number it is something else. */
function withoutValue(text: string, value: string): string {
  const literal = value.replaceAll(/[\\^$.*+?()[\]{}|/-]/g, String.raw`\$&`);
  return text.replaceAll(new RegExp(`(?<![\\p{L}\\p{N}])${literal}(?![\\p{L}\\p{N}])`, "gu"), mark);
}

/** Shorter ones say nothing, and would tear holes into every text. */
const [textCharsMin, numberCharsMin] = [3, 2];

function collectLeaves(value: unknown, into: Set<string>): void {
  if (typeof value === "string" && value.trim().length >= textCharsMin) into.add(value.trim());
  if (typeof value === "number" && String(value).length >= numberCharsMin) into.add(String(value));
  if (typeof value !== "object" || value === null) return;
  for (const inner of Object.values(value)) collectLeaves(inner, into);
}

const emails = /[^\s"'<>()@]+@[^\s"'<>()@]+/g;
const longNumbers = /\d(?:[ .:/+-]?\d){5,}/g;

/** What is masked gets shorter, so a little more than the excerpt is looked at. */
function masked(text: string): string {
  const start = text.slice(0, 2 * charsMax);
  return start.replaceAll(emails, mark).replaceAll(longNumbers, mark).slice(0, charsMax);
}

function withoutRecord(text: string): string {
  try {
    const answer: unknown = JSON.parse(text);
    return JSON.stringify(telling(answer, typeof answer === "string"));
  } catch {
    // Cut short, or not JSON after all: every string that is not a member's name goes.
    return text.replaceAll(/"(?:[^"\\]|\\.)*(?:"|$)(\s*:)?/g, (found, colon) =>
      colon ? found : `"${mark}"`,
    );
  }
}

/** Members whose values say what is wrong, and those that give back what was sent; in lower case, letters only. */
const tellingNames = new Set(
  (
    "code codes detail details error errors errorcode errormessage errordescription exception fault field fields " +
    "instance invalidparams issue issues location message messages param parameter path pointer problem problems " +
    "property reason reasons rule status statuscode title traceid requestid correlationid type violations"
  ).split(" "),
);
const echoingNames = new Set(
  (
    "actual actualvalue attemptedvalue body current data entity got input object payload received record " +
    "rejectedvalue request resource target value values"
  ).split(" "),
);

function telling(value: unknown, isTelling: boolean): unknown {
  if (Array.isArray(value)) return value.map((inner) => telling(inner, isTelling));
  if (typeof value !== "object" || value === null) return isTelling || value === null ? value : mark;
  return Object.fromEntries(
    Object.entries(value).map(([name, inner]) => [name, telling(inner, tells(name, isTelling))]),
  );
}

function tells(name: string, isInside: boolean): boolean {
  const plain = name.toLowerCase().replaceAll(/[^a-z]/g, "");
  if (echoingNames.has(plain)) return false;
  return isInside || tellingNames.has(plain);
}
