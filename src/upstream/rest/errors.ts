import type { ErrorRule } from "../../platform/config/upstream-schema.ts";
import { slicesAt, textAt } from "../../platform/json-text.ts";
import type { HttpAnswer } from "../http-client.ts";
import { textOf, toText } from "./text.ts";

/** The answer, under the status that its body says it counts as. */
export function judgedByBody(answer: HttpAnswer, rules: readonly ErrorRule[] | undefined): HttpAnswer {
  if (rules === undefined || answer.body.length === 0) return answer;
  const text = textOf(answer);
  if (text === undefined || !/^\s*[{[]/.test(text)) return answer;
  const rule = rules.find((each) => fits(text, each));
  return rule ? { ...answer, status: rule.status } : answer;
}

function fits(text: string, { at, is }: ErrorRule): boolean {
  const token = textAt(text, at);
  if (token === undefined) return false;
  if (is === undefined) return saysSomething(token);
  const said = toText(token) ?? token;
  return is.some((each) => String(each) === said);
}

function saysSomething(token: string): boolean {
  if (/^[[{]/.test(token)) return slicesAt(token).length > 0;
  return !["null", "false", '""', "0"].includes(token);
}
