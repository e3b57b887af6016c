import { Client } from "pg";
import { Pool } from "undici";

import type { Phone } from "../phones.ts";

/** Fills the inbox through the API, as phones do. */
export async function uploadAll(apiUrl: string, phones: Phone[]): Promise<void> {
  const pool = new Pool(apiUrl, { connections: 8 });
  await Promise.all(phones.map((phone) => upload(pool, phone)));
  await pool.close();
}

async function upload(pool: Pool, { token, batches }: Phone): Promise<void> {
  for (const batch of batches) {
    const answer = await pool.request({
      method: "POST",
      path: "/v1/batches",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(batch),
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 300) throw new Error(`the upload was answered ${answer.statusCode}: ${text}`);
  }
}

/** Looks in the gateway's own books whether every mutation has its outcome. */
export async function assertAllApplied(databaseUrl: string): Promise<void> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    await client.query("select set_config('tidegate.tenant_id', 'bench', false)");
    const { rows } = await client.query<{ open: string }>(
      "select count(*) as open from tidegate.mutation_key where status is distinct from 'applied'",
    );
    if (rows[0]?.open !== "0") throw new Error(`${rows[0]?.open} mutations were not applied`);
  } finally {
    await client.end();
  }
}
