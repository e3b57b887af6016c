/** ` (did you mean …?)` when one of the candidates is a slip of the finger away from `word`, else nothing. */
export function didYouMean(word: string, candidates: readonly string[]): string {
  const slipsMax = Math.max(1, Math.min(3, Math.floor(word.length / 3)));
  const [best] = candidates
    .map((candidate) => ({ candidate, slips: editDistance(word.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ slips }) => slips <= slipsMax)
    .toSorted((a, b) => a.slips - b.slips);
  return best === undefined ? "" : ` (did you mean \`${best.candidate}\`?)`;
}

function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = at(row, j - 1) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, at(row, j) + 1, at(next, j - 1) + 1));
    }
    row = next;
  }
  return at(row, to.length);
}

function at(row: number[], index: number): number {
  return row[index] ?? Infinity;
}
