import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";

import { sabotages } from "./sabotages.ts";

const root = new URL("../../../", import.meta.url);

test.each(sabotages)(
  "the experiment still finds what it takes out: $name",
  async ({ file, find, test: by }) => {
    expect((await readFile(new URL(file, root), "utf8")).split(find)).toHaveLength(2);
    expect(await readFile(new URL(by.file, root), "utf8")).toContain(by.name);
  },
);
