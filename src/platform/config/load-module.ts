import { createRequire } from "node:module";

/** What the file exports, or why it can't be loaded. */
export type Loaded = { exports: Readonly<Record<string, unknown>> } | { reason: string };

/**
 * Loads a file of the operator's: JavaScript, or TypeScript whose types Node can strip. Its own imports are found from
 * where it is.
 */
export function loadModule(file: string): Loaded {
  try {
    const exports: unknown = createRequire(import.meta.url)(file);
    return { exports: isMap(exports) ? exports : { default: exports } };
  } catch (error) {
    return { reason: reasonOf(error, file) };
  }
}

function reasonOf(error: unknown, file: string): string {
  if (!(error instanceof Error)) return "can't be loaded (it throws what is no Error)";
  const { code, name, message, stack = "" }: NodeJS.ErrnoException = error;
  const [said = ""] = message.split("\n");
  if (code === "MODULE_NOT_FOUND" && said.includes(`'${file}'`)) return "there is no such file";
  if (code === "ERR_REQUIRE_ASYNC_MODULE")
    return "can't be loaded: it has an `await` outside of its functions";
  const at = stack.split(`${file}:`)[1]?.match(/^\d+/);
  return `can't be loaded (${name}: ${said}${at ? `, line ${at[0]}` : ""})`;
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
