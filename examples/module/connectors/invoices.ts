import type { ConnectorModule, HttpAnswer, UpstreamRecord } from "tidegate/connector";

/** An accounting system: JSON over HTTP, whose records are found by our reference and changed by their revision. */
export default {
  entities: {
    invoice: {
      create: { class: "lookup" },
      update: { class: "conditional" },
      delete: { class: "conditional" },
      reference: "/yourRef",
      lookup: true,
      list: true,
    },
  },
  open({ company }, { http, failure }) {
    if (!http) throw new Error("it needs baseUrl");
    const all = `/companies/${encodeURIComponent(String(company))}/invoices`;
    const one = (id: string): string => `${all}/${encodeURIComponent(id)}`;

    /** The text of an answer. Whoever can't read it does not know what was done. */
    function textOf({ status, body }: HttpAnswer): string {
      const text = new TextDecoder().decode(body);
      try {
        JSON.parse(text);
        return text;
      } catch {
        throw failure.unclear("the answer is not JSON", { status });
      }
    }

    function recordIn(answer: HttpAnswer): UpstreamRecord {
      const { "x-number": id, "x-revision": version } = answer.headers;
      if (typeof id !== "string")
        throw failure.unclear("the answer names no invoice", { status: answer.status });
      return { id, version: version as string | undefined, body: textOf(answer) };
    }

    function recordsIn(answer: HttpAnswer): { records: UpstreamRecord[]; next: string | undefined } {
      // Each invoice comes as text, so that its numbers are not read here.
      const { invoices, next } = JSON.parse(textOf(answer)) as {
        invoices?: { number: string; revision: string; text: string }[];
        next?: string;
      };
      if (!invoices) throw failure.unclear("the answer is no list", { status: answer.status });
      return {
        records: invoices.map(({ number: id, revision: version, text: body }) => ({ id, version, body })),
        next,
      };
    }

    return {
      async create(call) {
        const answer = await http.send(call, { method: "POST", path: all, body: call.body });
        if (answer.status >= 300) throw failure.ofStatus("create", answer);
        return recordIn(answer);
      },
      async update(call) {
        const headers = { "if-match": call.version ?? "*" };
        const answer = await http.send(call, {
          method: "PATCH",
          path: one(call.id),
          headers,
          body: call.patch,
        });
        if (answer.status >= 300) throw failure.ofStatus("update", answer);
        return recordIn(answer);
      },
      async delete(call) {
        const headers = { "if-match": call.version ?? "*" };
        const answer = await http.send(call, { method: "DELETE", path: one(call.id), headers });
        if (answer.status >= 300) throw failure.ofStatus("delete", answer);
      },
      async read(call) {
        const answer = await http.send(call, { method: "GET", path: one(call.id) });
        if (answer.status === 404) return undefined;
        if (answer.status >= 300) throw failure.ofStatus("read", answer);
        return recordIn(answer);
      },
      async lookup(call) {
        const found: UpstreamRecord[] = [];
        let path: string | undefined = `${all}?yourRef=${encodeURIComponent(call.tempId)}`;
        while (path !== undefined) {
          const answer = await http.send(call, { method: "GET", path });
          if (answer.status >= 300) throw failure.ofStatus("lookup", answer);
          const { records, next } = recordsIn(answer);
          // A filter that is ignored gives everybody's.
          found.push(...records.filter(({ body = "{}" }) => JSON.parse(body).yourRef === call.tempId));
          path = next;
        }
        return found;
      },
      async list(call) {
        const answer = await http.send(call, { method: "GET", path: call.after ?? all });
        if (answer.status >= 300) throw failure.ofStatus("list", answer);
        return recordsIn(answer);
      },
    };
  },
} satisfies ConnectorModule;
