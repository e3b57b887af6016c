import { XMLParser, XMLValidator } from "fast-xml-parser";

/** An element by what it means: its namespace, not its prefix. */
export interface Element {
  namespace: string;
  name: string;
  /** By name, those of a namespace as `{namespace}name`. */
  attributes: ReadonlyMap<string, string>;
  children: Element[];
  /** What stands directly in it, every character of it. */
  text: string;
}

/** Text that is not XML, or XML of a kind that nobody has business to send us. Says nothing of what it holds. */
export class XmlError extends Error {}

/** Characters that no XML document can hold, not even as `&#0;`. */
export class UnspeakableText extends Error {}

const depthMax = 50;
const prolog = /^\uFEFF?(?:\s|<\?[^]*?\?>|<!--[^]*?-->)*/;

const parser = new XMLParser({
  preserveOrder: true,
  ignoreAttributes: false,
  attributeNamePrefix: "",
  // Everything is text: what looks like a number keeps its digits, what looks like an entity is decoded below.
  parseTagValue: false,
  parseAttributeValue: false,
  trimValues: false,
  processEntities: false,
  cdataPropName: "#cdata",
  ignoreDeclaration: true,
  ignorePiTags: true,
  maxNestedTags: depthMax,
});

/**
 * Reads a document. One with a DOCTYPE is refused before anything of it is read, so entities (of other files, of other
 * entities) never mean anything; SOAP has no use for it.
 * @throws {XmlError}
 */
export function parseXml(text: string): Element {
  if (/^<!DOCTYPE/i.test(text.replace(prolog, ""))) throw new XmlError("it has a DOCTYPE");
  if (XMLValidator.validate(text) !== true) throw new XmlError("it is not well-formed");
  const [root, ...others] = nodesIn(text).filter((node) => tagOf(node) !== undefined);
  if (!root || others.length > 0) throw new XmlError("it has no root of its own");
  return toElement(root, undeclared);
}

export const schemaInstance = "http://www.w3.org/2001/XMLSchema-instance";

/** The second should be declared, and servers forget it. */
const undeclared = new Map([
  ["xml", "http://www.w3.org/XML/1998/namespace"],
  ["xsi", schemaInstance],
]);

/** As the parser gives it: `{ "tag": [children], ":@": attributes }`, `{ "#text": "…" }`. */
type Node = Record<string, unknown>;

function nodesIn(text: string): Node[] {
  try {
    return parser.parse(text) as Node[];
  } catch {
    throw new XmlError("the parser does not take it");
  }
}

function tagOf(node: Node): string | undefined {
  return Object.keys(node).find((key) => key !== ":@" && !key.startsWith("#"));
}

function toElement(node: Node, outer: ReadonlyMap<string, string>): Element {
  const tag = tagOf(node) ?? "";
  const attributes = Object.entries((node[":@"] ?? {}) as Record<string, string>);
  const namespaces = new Map(outer);
  for (const [name, value] of attributes)
    if (name === "xmlns" || name.startsWith("xmlns:"))
      namespaces.set(name.slice("xmlns:".length), decoded(value));
  const { namespace, name } = named(tag, namespaces, namespaces.get("") ?? "");
  const inside = node[tag] as Node[];
  return {
    namespace,
    name,
    attributes: new Map(
      attributes.map(([key, value]) => {
        const { namespace: of, name: local } = named(key, namespaces, "");
        return [of === "" ? local : `{${of}}${local}`, decoded(value)];
      }),
    ),
    children: inside.filter((each) => tagOf(each) !== undefined).map((each) => toElement(each, namespaces)),
    text: inside.map(textOf).join(""),
  };
}

function named(
  name: string,
  namespaces: ReadonlyMap<string, string>,
  standard: string,
): { namespace: string; name: string } {
  const [prefix, local] = name.includes(":") ? name.split(":", 2) : [undefined, name];
  if (prefix === undefined || prefix === "xmlns") return { namespace: standard, name };
  const namespace = namespaces.get(prefix);
  if (namespace === undefined) throw new XmlError("it has a prefix that stands for nothing");
  return { namespace, name: local ?? "" };
}

function textOf(node: Node): string {
  if ("#text" in node) return decoded(node["#text"] as string);
  if (!("#cdata" in node)) return "";
  return (node["#cdata"] as Node[]).map((each) => (each["#text"] ?? "") as string).join("");
}

const known: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };

function decoded(text: string): string {
  return text.replace(
    /&(?:#(\d{1,7}|x[0-9a-fA-F]{1,6})|(\w+));|&/g,
    (_whole, code?: string, name?: string) => {
      if (code !== undefined) return character(Number(code.startsWith("x") ? `0${code}` : code));
      const found = name !== undefined && Object.hasOwn(known, name) ? known[name] : undefined;
      if (found === undefined) throw new XmlError("it has an entity that stands for nothing");
      return found;
    },
  );
}

function character(code: number): string {
  const text = code <= 0x10_ff_ff ? String.fromCodePoint(code) : "";
  if (text === "" || !isSpeakable(text)) throw new XmlError("it has a character that XML can't hold");
  return text;
}

/** What XML 1.0 calls Char. */
function isSpeakable(text: string): boolean {
  return /^[\t\n\r\u0020-\uD7FF\uE000-\uFFFD\u{10000}-\u{10FFFF}]*$/u.test(text);
}

const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  // A reader turns a bare one into a line feed.
  "\r": "&#13;",
};

/** The text as it stands in an element or an attribute. @throws {UnspeakableText} rather than leave anything out. */
export function escapeXml(text: string): string {
  if (!isSpeakable(text)) throw new UnspeakableText();
  return text.replace(/[&<>"\r]/g, (found) => escapes[found] ?? "");
}
