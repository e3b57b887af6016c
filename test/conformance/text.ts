import { describe, expect, test } from "vitest";

import { textAt } from "../../src/platform/json-text.ts";
import { aRecord, creation, readBack, started } from "./calls.ts";
import type { Kind } from "./kind.ts";

/** What phones send comes through unchanged, as far as the protocol can carry it. */
export function describeText(kind: Kind): void {
  const { entity, can } = kind;
  const values = [
    ...can.exact.minutes.map((token) => ["minutes", token] as const),
    ...can.exact.note.map((token) => ["note", token] as const),
  ];

  describe("text", () => {
    test.for(values)("%s: %s arrives and comes back exactly", async ([field, token]) => {
      const subject = await started(kind);
      const text = field === "minutes" ? aRecord(token) : aRecord(45, token);
      const record = await subject.connector.create(creation(kind, "opaque", text));
      const { body } = await readBack(subject, { entity, id: record!.id });
      for (const found of [subject.server.records()[0]!, body!])
        expect(valueOf(found, field)).toBe(plain(token));
      const patch = `{"${field}":${token}}`;
      const call = { entity, id: record!.id, idempotencyKey: "k-2", patch, body: text };
      await subject.connector.update(call);
      expect(valueOf(subject.server.records()[0]!, field)).toBe(plain(token));
    });

    if (can.keyOrder)
      test("members keep their order", async () => {
        const subject = await started(kind);
        await subject.connector.create(creation(kind, "opaque", '{"note":"n","minutes":1}'));
        const [text] = subject.server.records();
        expect(text!.indexOf('"note"')).toBeLessThan(text!.indexOf('"minutes"'));
      });
  });
}

/** A number by its digits, a text by its characters: escapes may be other ones. */
function plain(token: string): string {
  return token.startsWith('"') ? (JSON.parse(token) as string) : token;
}

function valueOf(text: string, field: string): string | undefined {
  const token = textAt(text, `/${field}`);
  return token === undefined ? undefined : plain(token);
}
