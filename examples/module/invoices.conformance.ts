import { fileURLToPath } from "node:url";

import { describeConnector } from "tidegate/conformance/connector";

import { kindOf } from "./invoices.kind.ts";

describeConnector("invoices", kindOf(fileURLToPath(new URL("connectors/invoices.ts", import.meta.url))));
