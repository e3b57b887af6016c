import { connect } from "node:net";

/** Opens event streams over a connection each, and tells its parent what each of them was told. */
export interface OpenRequest {
  port: number;
  tokens: string[];
}

/** How many changes each reader has been told, or undefined for one whose stream was not opened. */
export type ManyTold = (number | undefined)[];

/** So many are opened at a time: a phone's retry would do the rest. */
const atOnce = 64;

const told: ManyTold = [];

async function openAll({ port, tokens }: OpenRequest): Promise<void> {
  const left = [...tokens.keys()].toReversed();
  const openNext = async (): Promise<void> => {
    for (let n = left.pop(); n !== undefined; n = left.pop()) await open(port, tokens[n]!, n);
  };
  await Promise.all(Array.from({ length: atOnce }, openNext));
}

/** Resolves with the answer's head. */
async function open(port: number, token: string, n: number): Promise<void> {
  const socket = connect(port, "127.0.0.1");
  socket.setEncoding("utf8").setNoDelay();
  socket.write(
    `GET /v1/changes/stream HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ${token}\r\naccept: text/event-stream\r\n\r\n`,
  );
  await new Promise<void>((resolve) => {
    socket.on("data", (text: string) => {
      if (told[n] === undefined && text.startsWith("HTTP/1.1 200")) told[n] = 0;
      if (told[n] !== undefined) told[n] += text.split("\nevent: change\n").length - 1;
      resolve();
    });
    socket.on("error", () => undefined);
    socket.once("close", () => {
      told[n] = undefined;
      resolve();
    });
  });
}

process.on("message", (request: OpenRequest | "told") => {
  if (request === "told") process.send?.(told);
  else void openAll(request).then(() => process.send?.(told));
});
process.on("disconnect", () => process.exit());
