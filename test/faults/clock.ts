/**
 * Loaded into one worker by `--import`: its wall clock is off by `FAULTS_CLOCK_SHIFT_MS`, and SIGUSR2 turns it to as far
 * off on the other side. The monotonic clock and timers go on as they are, as on a machine whose time somebody sets.
 */
const RealDate = Date;
let shiftMs = Number(process.env["FAULTS_CLOCK_SHIFT_MS"] ?? "0");

process.on("SIGUSR2", () => {
  shiftMs = -shiftMs;
});

globalThis.Date = new Proxy(RealDate, {
  construct: (target, args: unknown[], newTarget) =>
    Reflect.construct(target, args.length === 0 ? [target.now() + shiftMs] : args, newTarget) as object,
  apply: (target) => new target(target.now() + shiftMs).toString(),
  get: (target, key, receiver) =>
    key === "now" ? () => target.now() + shiftMs : (Reflect.get(target, key, receiver) as unknown),
});
