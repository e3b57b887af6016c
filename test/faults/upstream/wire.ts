import { connect, createServer, type AddressInfo, type Socket } from "node:net";

/** The network in front of the upstream, which can lose sight of one side without telling the other. */
export interface Wire {
  port: number;
  /** For so long connections stay open, or can be opened, and carry nothing; what is on them then never arrives. */
  blackhole: (ms: number) => Promise<void>;
  /** For so long connections are refused; those that are open are cut. */
  refuse: (ms: number) => Promise<void>;
}

const pause = async (ms: number): Promise<void> => await new Promise((resolve) => setTimeout(resolve, ms));

/** Forwards to `port` of this machine. */
export async function openWire(port: number): Promise<Wire> {
  const pairs = new Set<[Socket, Socket]>();
  let isDark = false;
  const server = createServer((client) => {
    const upstream = connect({ host: "127.0.0.1", port, noDelay: true });
    const pair: [Socket, Socket] = [client, upstream];
    pairs.add(pair);
    const end = (): void => {
      pairs.delete(pair);
      // A reset has to look like one on the other side too.
      for (const socket of pair) socket.resetAndDestroy();
    };
    client.setNoDelay(true);
    client.on("error", end).on("close", end);
    upstream.on("error", end);
    upstream.on("end", () => client.end());
    client.on("data", (chunk) => void (isDark || upstream.write(chunk)));
    upstream.on("data", (chunk) => void (isDark || client.write(chunk)));
  });
  const cut = (): void => {
    for (const pair of pairs) for (const socket of pair) socket.destroy();
  };
  const listen = async (on: number): Promise<void> =>
    await new Promise<void>((resolve) => void server.listen(on, "127.0.0.1", resolve));
  await listen(0);
  const { port: ours } = server.address() as AddressInfo;
  return {
    port: ours,
    async blackhole(ms) {
      if (isDark || !server.listening) return;
      isDark = true;
      await pause(ms);
      cut();
      isDark = false;
    },
    async refuse(ms) {
      if (isDark || !server.listening) return;
      server.close();
      cut();
      await pause(ms);
      await listen(ours);
    },
  };
}
