/** What took effect at the upstream, and whether it was in order. */
export interface Journal {
  /** @param isLost it went to a record without an ID: its create had not been answered. */
  add: (change: { phone: number; n: number }, isLost: boolean) => void;
  refuse: () => void;
  view: () => JournalView;
  /** The phones, in the order of their effects. */
  order: () => number[];
}

export interface JournalView {
  effects: number;
  /** Changes that came after a later one of the same phone, or before the record that they change had an ID. */
  outOfOrder: number;
  duplicates: number;
  /** Calls that were refused because it was down. */
  refused: number;
  /** From the first effect to the last. */
  elapsedMs: number;
}

export function createJournal(): Journal {
  const seen = new Set<string>();
  const highest = new Map<number, number>();
  const order: number[] = [];
  const counts = { effects: 0, outOfOrder: 0, duplicates: 0, refused: 0 };
  let firstAt = 0;
  let lastAt = 0;
  return {
    add({ phone, n }, isLost) {
      lastAt = performance.now();
      order.push(phone);
      if (counts.effects++ === 0) firstAt = lastAt;
      const key = `${phone}/${n}`;
      if (seen.has(key)) counts.duplicates++;
      else if (isLost || n < (highest.get(phone) ?? 0)) counts.outOfOrder++;
      seen.add(key);
      highest.set(phone, Math.max(n, highest.get(phone) ?? 0));
    },
    refuse: () => void counts.refused++,
    view: () => ({ ...counts, elapsedMs: lastAt - firstAt }),
    order: () => order,
  };
}
