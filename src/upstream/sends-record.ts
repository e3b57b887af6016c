import type { UpdateConfig } from "../platform/config/operation-schema.ts";

/** Whether an update sends the whole record rather than the change. */
export function sendsRecord({ sends, method }: UpdateConfig): boolean {
  return (sends ?? (method === "PUT" ? "record" : "change")) === "record";
}
