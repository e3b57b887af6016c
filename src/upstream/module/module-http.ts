import type { Http, HttpRequest } from "../../connector-module.ts";
import type { UpstreamConfig } from "../../platform/config/upstream-schema.ts";
import { UpstreamError, type Call } from "../connector.ts";
import { judge } from "../disposition.ts";
import { openSession } from "../http/session.ts";

/** What the requests of one call may have changed: the last one, which a failure is about, and those before it. */
export interface Trace {
  last: boolean;
  earlier: boolean;
}

export interface TracedCall extends Call {
  trace?: Trace;
}

export interface ModuleHttp extends Http {
  close(): Promise<void>;
}

/** Calls by HTTP for a module, with the upstream's own session. */
export function openModuleHttp(config: UpstreamConfig): ModuleHttp {
  const session = openSession(config);
  const base = new URL(config.baseUrl);
  const root = config.baseUrl.replace(/\/+$/, "");

  function pathOf(path: string): string {
    const url = new URL(root + path);
    if (url.origin !== base.origin || url.username !== "") throw new TypeError("the path leads elsewhere");
    return url.pathname + url.search;
  }

  function mayHaveChanged(status: number): boolean {
    return status < 300 || judge(status, "update", config.statuses).certainty === "ambiguous";
  }

  return {
    async send(call, { method, path, headers = {}, body, reads = isReading(method) }: HttpRequest) {
      const { trace = { last: false, earlier: false } } = call as TracedCall;
      trace.earlier ||= trace.last;
      trace.last = false;
      const request = { method, path: pathOf(path), headers: Object.entries(headers).flat(), body };
      try {
        const answer = await session.send(call, request);
        trace.last = !reads && mayHaveChanged(answer.status);
        return answer;
      } catch (error) {
        trace.last = !reads && !(error instanceof UpstreamError && error.certainty !== "ambiguous");
        throw error;
      }
    },
    close: () => session.close(),
  };
}

function isReading(method: string): boolean {
  return method === "GET" || method === "HEAD";
}
