import { errorCodes } from "../src/platform/errors.ts";
import { emitFile } from "./emitted-file.ts";

const rows = Object.entries(errorCodes).map(
  ([code, { status, title, cause, action }]) =>
    `| \`${code}\` | ${status} | ${cell(title)} | ${cell(cause)} | ${cell(action)} |`,
);

const page = `# Errors

Every expected failure has one of these codes. It is the \`type\` of a problem+json answer
(\`urn:tidegate:problem:<code>\`) and of the \`problem\` inside a mutation's result. The HTTP status is that of an
answer that fails as a whole; inside a result it only says what kind of failure it is.

This page is generated from \`src/platform/errors.ts\` by \`npm run errors\`.

| code | HTTP status | title | cause | what the operator does |
| --- | --- | --- | --- | --- |
${rows.join("\n")}
`;

emitFile("docs/errors.md", page, { command: "npm run errors" });

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}
