import { startLegacyService } from "./legacy-service.ts";

/** `node examples/soap/server.ts`: the legacy service, until it is stopped. */
const password = process.env["LEGACY_PASSWORD"];
if (!password) throw new Error("LEGACY_PASSWORD is not set");
const { url } = await startLegacyService({ port: 4020, user: "gateway", password });
console.log(`The legacy service listens at ${url}; its WSDL is at ${url}?wsdl.`);
