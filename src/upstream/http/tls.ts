import { getCACertificates } from "node:tls";

/** What TLS with an upstream is made of, all PEM. */
export interface TlsMaterial {
  /** Our certificate, with the intermediate ones behind it, and its key. */
  cert?: string;
  key?: string;
  passphrase?: string;
  /** Authorities that are believed besides Node's own (which include NODE_EXTRA_CA_CERTS). */
  ca?: string;
}

export function secureContextOf(
  material: TlsMaterial | undefined,
): Omit<TlsMaterial, "ca"> & { ca?: string[] } {
  const { ca, ...rest } = material ?? {};
  return ca === undefined ? rest : { ...rest, ca: [...getCACertificates("default"), ca] };
}
