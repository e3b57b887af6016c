import { expect, test } from "vitest";

import { whenAborted } from "./when-aborted.ts";

test("all that wait for a signal are told once, but those that were called off, also by another", () => {
  const stop = new AbortController();
  const told: string[] = [];
  const tell = (name: string): (() => void) => whenAborted(stop.signal, () => told.push(name));
  const forget = tell("called off");
  tell("first");
  whenAborted(stop.signal, () => forgetLater());
  const forgetLater = tell("called off by another");
  tell("last");
  forget();
  stop.abort();
  stop.abort();
  expect(told).toEqual(["first", "last"]);
});

test("one that is called off leaves others of the same function waiting", () => {
  const stop = new AbortController();
  let times = 0;
  const count = (): void => void times++;
  const forget = whenAborted(stop.signal, count);
  whenAborted(stop.signal, count);
  forget();
  forget();
  stop.abort();
  expect(times).toBe(1);
});
