import { randomUUID } from "node:crypto";

import type { Scene } from "./scene.ts";
import { heading, say } from "./tell.ts";
import { opsToken, userToken } from "./mint.ts";

/** What to do now that the demo has ended and stopped everything. */
export function afterwards(): void {
  heading("6  What to try next");
  say("npm run demo:legacy    in one terminal: the legacy system, json-server on port 4010");
  say("npm start              in another: the gateway, with the same configuration, on port 8080", "");
  say("and in a third:", "");
  curlLines({
    url: "http://127.0.0.1:8080",
    token: "$(npm run -s token -- --user kari)",
    legacyUrl: "http://127.0.0.1:4010",
  });
  links("http://127.0.0.1:8080", "npm run -s token -- --ops viewer");
  say("", "npm run demo -- --stay   tells this story again and keeps everything running at its end");
}

/** What to do while everything of the demo still runs. */
export function whileItRuns({ gateway: { url, secrets }, legacy }: Scene): void {
  heading("6  Everything is still running, until Ctrl-C. In another terminal:");
  curlLines({ url, token: userToken(secrets, "kari"), legacyUrl: legacy.url });
  links(url, `echo ${opsToken(secrets, "viewer")}`);
}

/** Not indented: they are to be copied. */
function curlLines({ url, token, legacyUrl }: { url: string; token: string; legacyUrl: string }): void {
  const [clientId, mentor] = [randomUUID(), `urn:uuid:${randomUUID()}`];
  console.log(`TOKEN=${token}

curl -sw "\\n" ${url}/v1/batches -H "Authorization: Bearer $TOKEN" \\
  -H "Content-Type: application/json" -H "Prefer: wait=10" -d '{
  "clientId": "${clientId}", "previousSeq": 0, "mutations": [
    { "seq": 1, "id": "${randomUUID()}", "entity": "mentor", "op": "create",
      "recordId": "${mentor}", "data": { "name": "Aud" } },
    { "seq": 2, "id": "${randomUUID()}", "entity": "activity", "op": "create",
      "recordId": "urn:uuid:${randomUUID()}",
      "data": { "mentor": "${mentor}", "minutes": 45 } } ] }'

curl -sw "\\n" "${url}/v1/changes?clientId=${clientId}" \\
  -H "Authorization: Bearer $TOKEN"

curl -sw "\\n" ${legacyUrl}/activities
`);
  say("Send the first one again: nothing is doubled, and you get the recorded outcomes.");
}

function links(url: string, tokenCommand: string): void {
  say(`The API, to read: ${url}/docs`);
  say(`The queues:       ${url}/ops/queues, with the token of`);
  console.log(tokenCommand);
}
