import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

import { beforeAll, describe, expect, onTestFinished, test } from "vitest";

interface Outcome {
  suite: string;
  title: string;
  status: "passed" | "failed" | "skipped";
}

/** Runs a suite as its author would, and tells what became of its tests. */
async function run(file: string, ...options: string[]): Promise<{ code: number; outcomes: Outcome[] }> {
  const folder = await mkdtemp(join(tmpdir(), "tidegate-kit-"));
  const report = join(folder, "report.json");
  const args = [resolve("scripts/conformance.ts"), file, "--reporter=json", `--outputFile=${report}`];
  const code = await promisify(execFile)(process.execPath, [...args, ...options]).then(
    () => 0,
    ({ code: failed }: { code: number }) => failed,
  );
  const { testResults } = JSON.parse(await readFile(report, "utf8")) as {
    testResults: {
      assertionResults: { ancestorTitles: string[]; title: string; status: Outcome["status"] }[];
    }[];
  };
  await rm(folder, { recursive: true });
  const results = testResults.flatMap(({ assertionResults }) => assertionResults);
  return {
    code,
    outcomes: results.map(({ ancestorTitles: [suite = ""], title, status }) => ({ suite, title, status })),
  };
}

test("an author's suite runs wherever it is, with nothing installed beside it", async () => {
  const folder = await mkdtemp(join(tmpdir(), "tidegate-author-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  await cp("examples/module", folder, { recursive: true });
  const { code, outcomes } = await run(join(folder, "invoices.conformance.ts"));
  expect(outcomes.filter(({ status }) => status === "failed")).toEqual([]);
  expect(outcomes.filter(({ status }) => status === "passed").length).toBeGreaterThan(80);
  expect(code).toBe(0);
});

describe("a connector that", () => {
  const caught = [
    ["sends again by itself", "a create of class lookup makes one record"],
    ["adopts what the search gives", "a server that ignores the search gives nobody else's record"],
    ["takes a conflict for done", "a change based on an old version conflicts and changes nothing"],
    ["forgets the version", "a change based on an old version conflicts and changes nothing"],
    ["holds the line after it was told to stop", "is given up at the server too when its caller stops"],
    ["leaves out a record between pages", "7 records in pages of 3 are each found once"],
    ["reads one page", "7 records in pages of 3 are each found once"],
    ["calls every failure unsent", "is ambiguous after: lose-reply"],
    ["calls every failure a refusal", "is ambiguous after: lose-reply"],
    ["believes any success", "is ambiguous after: garbage"],
    ["rounds numbers", "minutes: 9007199254740993 arrives and comes back exactly"],
  ] as const;
  let outcomes: Outcome[] = [];

  beforeAll(async () => {
    const pairs = caught.map(([name, title]) => `${name} .*${title}`);
    const sound = `nothing .*(${caught.map(([, title]) => title).join("|")})`;
    const only = ["-t", `^the connector of (${[sound, ...pairs].join("|")})`, "--expect.poll.timeout=1000"];
    ({ outcomes } = await run("test/conformance/broken/broken.conformance.ts", ...only));
  });

  const of = (name: string): Outcome[] =>
    outcomes.filter(({ suite }) => suite === `the connector of ${name}`);

  test("does what it should passes", () => {
    const ran = of("nothing").filter(({ status }) => status !== "skipped");
    expect(ran.length).toBeGreaterThan(caught.length);
    expect(ran.filter(({ status }) => status === "failed")).toEqual([]);
  });

  test.for(caught)("%s does not pass", ([name, title]) => {
    const failed = of(name).filter(({ status }) => status === "failed");
    expect(failed.map((each) => each.title)).toContain(title);
  });
});
