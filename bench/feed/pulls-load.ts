import { Client } from "undici";

import { answerParent } from "../child.ts";

/** Who pulls: each reader over a connection of its own, all at the same time, page by page until there is no more. */
export interface PullsRequest {
  url: string;
  readers: { token: string; path: string }[];
  /** How often each of them begins again. */
  times: number;
}

export interface PullsAnswer {
  changes: number;
  elapsedMs: number;
  pagesMs: number[];
}

answerParent(async ({ url, readers, times }: PullsRequest): Promise<PullsAnswer> => {
  const clients = readers.map(() => new Client(url));
  await Promise.all(
    clients.map((client) => client.request({ method: "GET", path: "/" }).then(({ body }) => body.dump())),
  );
  const pages: { text: string; tookMs: number }[] = [];
  const startedAt = performance.now();
  await Promise.all(
    readers.map(async ({ token, path }, index) => {
      for (let time = 0; time < times; time++) {
        for (let next: string | undefined = path; next !== undefined;) {
          const sentAt = performance.now();
          const text = await pull(clients[index]!, next, token);
          pages.push({ text, tookMs: performance.now() - sentAt });
          next = nextOf(path, text);
        }
      }
    }),
  );
  const elapsedMs = performance.now() - startedAt;
  await Promise.all(clients.map((client) => client.close()));
  const changes = pages.reduce((sum, { text }) => sum + text.split('"entity":"activity"').length - 1, 0);
  return { changes, elapsedMs, pagesMs: pages.map(({ tookMs }) => tookMs) };
});

async function pull(client: Client, path: string, token: string): Promise<string> {
  const answer = await client.request({ method: "GET", path, headers: { authorization: `Bearer ${token}` } });
  const text = await answer.body.text();
  if (answer.statusCode !== 200) throw new Error(`${answer.statusCode}: ${text}`);
  return text;
}

/** Without parsing the page: what that costs is not what is measured. */
function nextOf(path: string, text: string): string | undefined {
  if (/"more":false\b/.test(text.slice(0, 20) + text.slice(-400))) return undefined;
  const [, cursor] = /"cursor":"([^"]+)"/.exec(text.slice(-400)) ?? [];
  if (cursor === undefined) throw new Error("a page without a cursor");
  return `${path.replace(/&cursor=.*/, "")}&cursor=${cursor}`;
}
