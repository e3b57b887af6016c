/**
 * How payloads become bytes in the database and back. Every payload column has a key ID beside it, so that another
 * codec can take over without a migration: what was written under an old key ID stays readable.
 */
export interface PayloadCodec {
  /** The key under which `encode` writes at present. */
  readonly keyId: string;
  encode(text: string): Buffer;
  /** Throws a plain `Error` for a key ID that this process does not have. */
  decode(keyId: string, bytes: Buffer): string;
}

/** No encryption: UTF-8 as it is. */
export const plainCodec: PayloadCodec = {
  keyId: "plain",
  encode: (text) => Buffer.from(text, "utf8"),
  decode: (keyId, bytes) => {
    if (keyId !== "plain") throw new Error(`no key ${keyId} to read a payload with`);
    return bytes.toString("utf8");
  },
};
