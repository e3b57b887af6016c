import { createHmac } from "node:crypto";
import { parseArgs } from "node:util";

import { prepareEnvironment } from "../../src/platform/environment.ts";

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

/** `npm run -s token -- --user kari [--role coordinator]`, or `-- --ops viewer`: for the gateway of `npm start`. */
function main(): void {
  const { values } = parseArgs({
    options: {
      user: { type: "string", default: "kari" },
      role: { type: "string", multiple: true, default: [] },
      ops: { type: "string" },
    },
  });
  const secrets = prepareEnvironment(process.env).env as Secrets;
  console.log(values.ops ? opsToken(secrets, values.ops) : userToken(secrets, values.user, values.role));
}

if (import.meta.main) main();
