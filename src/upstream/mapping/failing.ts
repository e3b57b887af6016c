/** Whose data a mapping could not take. */
export interface Untaken {
  userId: string;
  recordKey: string;
}

/** Tells a mapping that is wrong from data that is. */
export interface FailingMappings {
  /** It took some data: whatever failed before was the data's fault. */
  took(place: string): void;
  /**
   * Notes that it did not. True when it is the mapping's fault: it has taken nothing since it failed for several users, and
   * for as many records. One user alone, or one record that several want to change, never makes it so.
   *
   * @param place the mapping's, in the configuration.
   */
  failed(place: string, of: Untaken): boolean;
}

const several = 3;

/** What is known of them since the process started. */
export function createFailingMappings(): FailingMappings {
  const failures = new Map<string, { users: Set<string>; records: Set<string> }>();
  return {
    took: (place) => void failures.delete(place),
    failed(place, { userId, recordKey }) {
      const { users, records } = failures.get(place) ?? { users: new Set(), records: new Set() };
      failures.set(place, { users, records });
      if (users.size < several) users.add(userId);
      if (records.size < several) records.add(recordKey);
      return users.size === several && records.size === several;
    },
  };
}
