import swagger from "@fastify/swagger";
import scalar from "@scalar/fastify-api-reference";
import type { FastifyInstance } from "fastify";
import { stringify } from "yaml";

export interface OpenapiOptions {
  /** The gateway's version, as in package.json. */
  version: string;
}

const description = `Tidegate takes the outboxes of offline-first apps, keeps every mutation exactly once, and replays
it in order into the system of record.

Errors are \`application/problem+json\` (RFC 9457) with stable types \`urn:tidegate:problem:<code>\`. Times are RFC 3339.
Bodies may be gzip; answers are compressed when asked. Every answer has \`X-Request-Id\`.`;

const tags = [
  { name: "sync", description: "What the app calls: upload, follow, look up." },
  { name: "webhooks", description: "What upstreams call." },
  { name: "operations", description: "What operators call; health and metrics." },
];

const securitySchemes = {
  client: { type: "http", scheme: "bearer", bearerFormat: "JWT", description: "The user's token." },
  ops: {
    type: "http",
    scheme: "bearer",
    bearerFormat: "JWT",
    description: "An operator's token, claim `role`.",
  },
} as const;

/**
 * Emits the OpenAPI 3.1 document from the routes' schemas: `openapiYaml(app)`, `GET /openapi.yaml`, and `GET /docs` to
 * read it. Register before the routes. A route that needs no token says `security: []`.
 */
export async function registerOpenapi(app: FastifyInstance, { version }: OpenapiOptions): Promise<void> {
  await app.register(swagger, {
    convertConstToEnum: false,
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "Tidegate",
        version,
        description,
        license: { name: "Unlicensed", identifier: "LicenseRef-Unlicensed" },
      },
      servers: [{ url: "/" }],
      tags,
      components: { securitySchemes },
      security: [{ client: [] }],
    },
    refResolver: {
      buildLocalReference: (json, _baseUri, _fragment, index) =>
        typeof json["$id"] === "string" ? json["$id"] : `schema-${index}`,
    },
  });
  let yaml: string | undefined;
  app.get("/openapi.yaml", { schema: { hide: true } }, async (_request, reply) => {
    yaml ??= openapiYaml(app);
    return reply.type("application/yaml").send(yaml);
  });
  await app.register(registerDocs);
}

/** The document as `/openapi.yaml` and the file of that name have it. The app has to be ready. */
export function openapiYaml(app: FastifyInstance): string {
  return stringify(app.swagger(), { aliasDuplicateObjects: false, lineWidth: 120 });
}

/** Everything comes from this server: the page works without internet, and tells no one that it was read. */
const docsPolicy =
  "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; " +
  "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'";

async function registerDocs(app: FastifyInstance): Promise<void> {
  app.addHook("onRequest", async (_request, reply) => {
    reply.header("content-security-policy", docsPolicy);
  });
  await app.register(scalar, {
    routePrefix: "/docs",
    configuration: {
      url: "../openapi.yaml",
      pageTitle: "Tidegate API",
      withDefaultFonts: false,
      telemetry: false,
      hideClientButton: true,
      showDeveloperTools: "never",
      agent: { disabled: true },
      mcp: { disabled: true },
    },
  });
}
