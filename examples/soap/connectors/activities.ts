import type { Connector, ConnectorModule, Context, ListCall, Page, UpstreamRecord } from "tidegate/connector";
import { Digits, membersOf, toJsonNumber, toObjectText, type Value } from "./json.ts";
import { childOf, openSoap, type Soap, type SoapOptions } from "./soap.ts";
import { escapeXml, schemaInstance, UnspeakableText, type Element } from "./xml.ts";

const namespace = "urn:legacy:activities:v1";
const lookupPagesMax = 10;

/** What an activity has, in the schema's order, which a message has to keep. */
const fields = [
  ["externalRef", "text"],
  ["mentor", "text"],
  ["date", "text"],
  ["minutes", "decimal"],
  ["note", "text"],
] as const;

/**
 * A legacy service for activities, over SOAP 1.1 (`activities.wsdl`). It numbers records itself, keeps our reference and
 * finds records by it, and changes and deletes only the version that it is told. Of a change, a field that is missing
 * stays as it is, one that is nil is cleared, and an empty one is empty.
 */
export default {
  entities: {
    activity: {
      create: { class: "lookup" },
      update: { class: "conditional" },
      delete: { class: "conditional" },
      reference: "/externalRef",
      lookup: true,
      list: { since: true, updatedAt: "/changedAt" },
    },
  },
  check: ({ user, password }) =>
    (["user", "password"] as const)
      .filter((key) => typeof { user, password }[key] !== "string")
      .map((key) => ({ at: [key], message: "has to be a text" })),
  open({ user, password }, context) {
    if (!context.http) throw new Error("it needs baseUrl");
    const who = { name: user as string, password: password as string };
    return connectorOver(openSoap(context, context.http, { namespace, user: who, codes }), context);
  },
} satisfies ConnectorModule;

const codes: SoapOptions["codes"] = {
  INVALID: (failure, facts) => failure.refused("reject", "the service refused the data", facts),
  STALE: (failure, facts) => failure.refused("conflict", "the record has changed", facts),
  NOT_FOUND: (failure, facts) =>
    failure.refused("conflict", "there is no such record", { ...facts, status: 404 }),
  BUSY: (failure, facts) => failure.refused("retry", "the service is busy", facts),
  DENIED: (failure, facts) =>
    failure.refused("retry", "the service does not let us in", { ...facts, systemic: true }),
};

function isOurs(element: Element, name: string): boolean {
  return element.name === name && element.namespace === namespace;
}

/** A service that takes no notice of what it was asked for answers with everybody's. */
function carries({ body = "{}" }: UpstreamRecord, tempId: string): boolean {
  const value = membersOf(body).get("externalRef");
  return typeof value === "string" && value.toLowerCase() === tempId.toLowerCase();
}

function connectorOver(soap: Soap, { failure }: Context): Connector {
  /** The fields of a record or a change as XML. What can't be said is refused whole, before anything is sent. */
  function toXml(text: string): string {
    const members = membersOf(text);
    const unknown = [...members.keys()].find((name) => !fields.some(([known]) => known === name));
    if (unknown !== undefined)
      throw failure.refused("park", "the mapping gives a field that the service lacks");
    return fields
      .filter(([name]) => members.has(name))
      .map(([name, type]) => fieldXml(name, type, members.get(name) ?? null))
      .join("");
  }

  function fieldXml(name: string, type: "text" | "decimal", value: Value): string {
    if (value === null) return `<s:${name} xmlns:i="${schemaInstance}" i:nil="true"/>`;
    if (type === "decimal") {
      // xsd:decimal has no exponents, and to write them out is to guess how many digits were meant.
      if (value instanceof Digits && !/e/i.test(value.text)) return element(name, value.text);
      throw failure.refused("reject", `${name} is no decimal number`);
    }
    if (typeof value !== "string") throw failure.refused("reject", `${name} is no text`);
    return element(name, value);
  }

  function element(name: string, text: string | undefined): string {
    if (text === undefined) return "";
    try {
      return `<s:${name}>${escapeXml(text)}</s:${name}>`;
    } catch (error) {
      if (!(error instanceof UnspeakableText)) throw error;
      throw failure.refused("reject", `${name} has characters that XML can't carry`);
    }
  }

  function recordIn(holder: Element): UpstreamRecord {
    const activity = isOurs(holder, "activity") ? holder : childOf(holder, "activity", namespace);
    const id = activity && childOf(activity, "id", namespace)?.text;
    if (!activity || !id) throw failure.unclear("the answer has no activity");
    const members = [...fields, ["changedAt", "text"] as const].flatMap(([name, type]) => {
      const child = childOf(activity, name, namespace);
      return child ? [[name, valueIn(child, type)] as const] : [];
    });
    const version = childOf(activity, "version", namespace)?.text;
    return { id, version, body: toObjectText(members) };
  }

  function valueIn(child: Element, type: "text" | "decimal"): string {
    const nil = child.attributes.get(`{${schemaInstance}}nil`);
    if (nil === "true" || nil === "1") return "null";
    if (type === "text") return JSON.stringify(child.text);
    const number = toJsonNumber(child.text);
    if (number === undefined) throw failure.unclear("the answer has a number that is none");
    return number;
  }

  async function page(
    call: ListCall,
    { operation, name, content }: { operation: "list" | "lookup"; name: string; content: string },
  ): Promise<Page> {
    const asked = content + element("page", call.after);
    const answer = await soap.send(call, { operation, name, content: asked });
    const records = answer.children.filter((child) => isOurs(child, "activity")).map(recordIn);
    return { records, next: childOf(answer, "nextPage", namespace)?.text || undefined };
  }

  return {
    async create(call) {
      const content = `<s:activity>${toXml(call.body)}</s:activity>`;
      return recordIn(await soap.send(call, { operation: "create", name: "CreateActivity", content }));
    },
    async update(call) {
      const content =
        element("id", call.id) +
        element("version", call.version) +
        `<s:activity>${toXml(call.patch)}</s:activity>`;
      return recordIn(await soap.send(call, { operation: "update", name: "UpdateActivity", content }));
    },
    async delete(call) {
      const content = element("id", call.id) + element("version", call.version);
      await soap.send(call, { operation: "delete", name: "DeleteActivity", content });
    },
    async read(call) {
      const content = element("id", call.id);
      const answer = await soap.send(call, { operation: "read", name: "GetActivity", content });
      return answer.children.length === 0 ? undefined : recordIn(answer);
    },
    async lookup(call) {
      const content = element("externalRef", call.tempId);
      const ours: UpstreamRecord[] = [];
      let after: string | undefined;
      for (let pages = 0; pages < lookupPagesMax; pages++) {
        const asked = { operation: "lookup", name: "FindActivities", content } as const;
        const { records, next } = await page({ ...call, after }, asked);
        ours.push(...records.filter((record) => carries(record, call.tempId)));
        if (next === undefined) return ours;
        after = next;
      }
      throw failure.unclear("the search has no end");
    },
    async list(call) {
      const content = element("since", call.since?.toISOString());
      return await page(call, { operation: "list", name: "ListActivities", content });
    },
  };
}
