import { createHash } from "node:crypto";

export const uuidPattern = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";

const tempId = /^urn:uuid:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$/i;

/** The UUID, in lower case, of a temp ID `urn:uuid:<uuid>`; undefined for anything else. */
export function tempUuid(value: string): string | undefined {
  return value.length === 45 ? tempId.exec(value)?.[1]?.toLowerCase() : undefined;
}

/** The temp ID of a UUID. */
export function toTempId(uuid: string): string {
  return `urn:uuid:${uuid}`;
}

/** Always the same UUID (version 8) for the same text: a name of ours that nobody has to remember. */
export function uuidOf(text: string): string {
  const hex = createHash("sha256").update(text).digest("hex");
  const variant = ((parseInt(hex.slice(16, 18), 16) & 0x3f) | 0x80).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(18, 20)}-${hex.slice(20, 32)}`;
}
