import type { Call, Context, Failures, Http, HttpAnswer, Operation } from "tidegate/connector";
import { escapeXml, parseXml, XmlError, type Element } from "./xml.ts";

const envelopeNamespace = "http://schemas.xmlsoap.org/soap/envelope/";
const security = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";

export interface SoapOptions {
  /** The service's own namespace. */
  namespace: string;
  /** Who we are, in the header of each message (WS-Security); without it, as the configuration's `auth` says. */
  user?: { name: string; password: string } | undefined;
  /** What the service's own codes in a fault's `detail` mean. */
  codes: Readonly<Record<string, (failure: Failures, facts: { status?: number; excerpt: string }) => Error>>;
}

export interface Message {
  operation: Operation;
  /** The service's operation, which is the name of the body's element too. */
  name: string;
  /** XML of the body's element. */
  content: string;
}

/** A SOAP 1.1 service, document style: one element in, one element out, or a fault. */
export interface Soap {
  /** @throws one of the gateway's failures. */
  send(call: Call, message: Message): Promise<Element>;
}

export function openSoap({ failure }: Context, http: Http, { namespace, user, codes }: SoapOptions): Soap {
  function failureIn(fault: Element, answer: HttpAnswer, operation: Operation): Error {
    const code = childOf(fault, "faultcode")?.text.trim();
    // Of SOAP 1.2, as some servers write it whatever they were asked in.
    if (code === undefined) return failure.ofStatus(operation, answer);
    const excerpt = `${code}: ${childOf(fault, "faultstring")?.text ?? ""}`;
    const facts = { ...(answer.status >= 300 && { status: answer.status }), excerpt };
    const own = detailOf(fault);
    const means = own !== undefined && Object.hasOwn(codes, own) ? codes[own] : undefined;
    if (means) return means(failure, facts);
    switch (code.replace(/^.*:/, "").replace(/\..*$/, "")) {
      case "Client":
        return failure.refused("park", "the service blames the message", facts);
      case "VersionMismatch":
      case "MustUnderstand":
        return failure.refused("retry", "the service does not take our envelopes", {
          ...facts,
          systemic: true,
        });
      default:
        // Server, or anything else: how far it came is not said.
        return failure.unclear("the service failed", facts);
    }
  }

  function unreadable({ status }: HttpAnswer, why: string): Error {
    return failure.unclear(`the answer is no SOAP: ${why}`, { status });
  }

  return {
    async send(call, { operation, name, content }) {
      const answer = await http.send(call, {
        method: "POST",
        path: "",
        headers: {
          accept: "text/xml",
          "content-type": "text/xml; charset=utf-8",
          soapaction: `"${namespace}/${name}"`,
        },
        body: envelope(`<s:${name} xmlns:s="${namespace}">${content}</s:${name}>`, user),
        reads: operation === "read" || operation === "lookup" || operation === "list",
      });
      const body = bodyIn(answer);
      const fault = typeof body === "object" ? childOf(body, "Fault", envelopeNamespace) : undefined;
      if (fault) throw failureIn(fault, answer, operation);
      if (answer.status >= 300) throw failure.ofStatus(operation, answer);
      if (typeof body === "string") throw unreadable(answer, body);
      const [result, ...others] = body.children;
      if (result?.name !== `${name}Response` || result.namespace !== namespace || others.length > 0)
        throw unreadable(answer, "not the answer to what was asked");
      return result;
    },
  };
}

function envelope(body: string, user: SoapOptions["user"]): string {
  const header =
    user === undefined
      ? ""
      : `<e:Header><w:Security xmlns:w="${security}" e:mustUnderstand="1"><w:UsernameToken>` +
        `<w:Username>${escapeXml(user.name)}</w:Username><w:Password>${escapeXml(user.password)}</w:Password>` +
        "</w:UsernameToken></w:Security></e:Header>";
  return (
    `<?xml version="1.0" encoding="utf-8"?>` +
    `<e:Envelope xmlns:e="${envelopeNamespace}">${header}<e:Body>${body}</e:Body></e:Envelope>`
  );
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** The body of the answer's envelope, or why there is none. */
function bodyIn({ body }: HttpAnswer): Element | string {
  try {
    const root = parseXml(utf8.decode(body));
    if (root.name !== "Envelope" || root.namespace !== envelopeNamespace) return "it has no envelope";
    return childOf(root, "Body", envelopeNamespace) ?? "its envelope is empty";
  } catch (error) {
    return error instanceof XmlError ? error.message : "it is not UTF-8";
  }
}

/** The service's own code in `<detail><code>…`, in whatever namespace. */
function detailOf(fault: Element): string | undefined {
  const detail = childOf(fault, "detail");
  return detail?.children.find(({ name }) => name === "code")?.text.trim();
}

export function childOf(element: Element, name: string, namespace = ""): Element | undefined {
  return element.children.find((child) => child.name === name && child.namespace === namespace);
}
