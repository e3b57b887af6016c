import { createHmac } from "node:crypto";

export type Secrets = Record<"DEMO_JWT_SECRET" | "DEMO_OPS_SECRET", string>;

/** A token as config/demo.yaml wants it from the organisation's own login. Valid for twelve hours. */
export function userToken(secrets: Secrets, user: string, roles: string[] = []): string {
  return sign({ iss: "tidegate-demo", aud: "tidegate", sub: user, roles }, secrets.DEMO_JWT_SECRET);
}

/** A token for /ops. @param role viewer, operator or approver */
export function opsToken(secrets: Secrets, role: string): string {
  return sign({ iss: "tidegate-demo-ops", aud: "tidegate-ops", sub: "demo", role }, secrets.DEMO_OPS_SECRET);
}

function sign(claims: object, secret: string): string {
  const exp = Math.floor(Date.now() / 1000) + 12 * 3600;
  const input = `${part({ alg: "HS256", typ: "JWT" })}.${part({ ...claims, exp })}`;
  return `${input}.${createHmac("sha256", secret).update(input).digest("base64url")}`;
}

function part(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString("base64url");
}
