/** What has to be ended and removed, in the reverse order of its beginning, whatever happens. */
export interface Cleanup {
  add: (undo: () => Promise<unknown> | void) => void;
  run: () => Promise<void>;
}

export function newCleanup(): Cleanup {
  const undos: (() => Promise<unknown> | void)[] = [];
  return {
    add: (undo) => void undos.push(undo),
    async run() {
      for (let undo = undos.pop(); undo; undo = undos.pop()) {
        try {
          await undo();
        } catch (error) {
          process.stderr.write(`could not clean up: ${String(error)}\n`);
        }
      }
    },
  };
}
