import { fileSchema } from "../src/platform/config/file-schema.ts";
import { emitFile } from "./emitted-file.ts";

emitFile("config/tidegate.schema.json", `${JSON.stringify(fileSchema(), null, 2)}\n`, {
  command: "npm run config-schema",
});
