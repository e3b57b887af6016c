import { slicesAt } from "../../platform/json-text.ts";
import { UpstreamError } from "../connector.ts";
import { toText } from "./text.ts";

/**
 * A JSON object as `application/x-www-form-urlencoded`.
 *
 * A member is `name=value`: texts as they are, numbers by their digits, true and false by their names, null as an empty
 * value. A member of an object within is `outer[inner]=value`, an element of a list `name[]=value`, in its order.
 * @throws {UpstreamError} `not-sent`, parked, for what this can't say: empty objects and lists, lists that hold lists or
 * objects, names with brackets, halves of characters.
 */
export function toForm(body: string): string {
  const pairs: string[] = [];
  addMembers(body, (key) => key, pairs);
  return pairs.join("&");
}

function addMembers(object: string, nameOf: (key: string) => string, pairs: string[]): void {
  for (const { key, start, end } of slicesAt(object)) {
    if (/[[\]]/.test(key)) throw unsayable("a name with brackets");
    addValue(nameOf(key), object.slice(start, end), pairs);
  }
}

function addValue(name: string, value: string, pairs: string[]): void {
  if (value.startsWith("{")) {
    if (slicesAt(value).length === 0) throw unsayable("an empty object");
    return addMembers(value, (key) => `${name}[${key}]`, pairs);
  }
  if (!value.startsWith("[")) return void pairs.push(pairOf(name, value));
  const elements = slicesAt(value).map(({ start, end }) => value.slice(start, end));
  if (elements.length === 0) throw unsayable("an empty list");
  if (elements.some((element) => /^[[{]/.test(element))) throw unsayable("a list of lists or objects");
  for (const element of elements) pairs.push(pairOf(`${name}[]`, element));
}

function pairOf(name: string, value: string): string {
  const text = value === "null" ? "" : (toText(value) ?? value);
  if (!name.isWellFormed() || !text.isWellFormed()) throw unsayable("half a character");
  return `${encodeURIComponent(name)}=${encodeURIComponent(text)}`;
}

function unsayable(what: string): UpstreamError {
  return new UpstreamError(`a form can't say ${what}`, { certainty: "not-sent", disposition: "park" });
}
