import { parseArgs } from "node:util";

import { prepareEnvironment } from "../../src/platform/environment.ts";
import { opsToken, userToken, type Secrets } from "./mint.ts";

// `npm run -s token -- --user kari [--role coordinator]`, or `-- --ops viewer`: for the gateway of `npm start`.
const { values } = parseArgs({
  options: {
    user: { type: "string", default: "kari" },
    role: { type: "string", multiple: true, default: [] },
    ops: { type: "string" },
  },
});
const secrets = prepareEnvironment(process.env).env as Secrets;
console.log(values.ops ? opsToken(secrets, values.ops) : userToken(secrets, values.user, values.role));
