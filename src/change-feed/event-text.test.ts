import { expect, test } from "vitest";

import { RawJson } from "../http/raw-json.ts";
import { changeJson, eventText } from "./event-text.ts";

test("JSON that came over several lines is one event, and means the same", () => {
  const data = new RawJson('{\n\t"n": 12345678901234567890,\r\n "a\\nb":\r[1] }');
  const json = changeJson({ type: "upsert", entity: "activity", id: "7", version: "1", data });
  const text = eventText("change", json, "cursor");
  expect(text.endsWith("\n\n")).toBe(true);
  const lines = text.trimEnd().split("\n");
  expect(lines.slice(0, 2)).toEqual(["id: cursor", "event: change"]);
  const dataLines = lines.slice(2);
  for (const line of dataLines) expect(line).toMatch(/^data: [^\r]*$/);
  const joined = dataLines.map((line) => line.slice("data: ".length)).join("\n");
  expect(JSON.parse(joined)).toMatchObject({ id: "7", data: { "a\nb": [1] } });
  expect(joined).toContain("12345678901234567890");
});
