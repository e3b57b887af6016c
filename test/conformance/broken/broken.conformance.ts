import { fileURLToPath } from "node:url";

import { kindOf } from "../../../examples/module/invoices.kind.ts";
import { describeConnector } from "../connector.ts";
import { breaks } from "./connector.ts";

const module = fileURLToPath(new URL("connector.ts", import.meta.url));

for (const name of Object.keys(breaks))
  describeConnector(
    name,
    kindOf(module, (url) => ({ breaks: name, url })),
  );
