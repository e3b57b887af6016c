/** The forms that names and strings of the configuration take, with the words an error message has for them. */
export const patterns = {
  id: {
    pattern: "^[a-z][a-z0-9-]{0,62}$",
    words: "a name of lower-case letters, digits and `-` that begins with a letter, at most 63 characters",
  },
  entityName: {
    pattern: "^[A-Za-z][A-Za-z0-9_-]{0,62}$",
    words: "a name of letters, digits, `_` and `-` that begins with a letter, at most 63 characters",
  },
  jsonPointer: {
    pattern: "^(/([^/~]|~[01])*)+$",
    words: "a JSON Pointer (RFC 6901) such as /mentor",
  },
  headerName: {
    pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
    words: "a header name",
  },
  headerValue: {
    pattern: "^[\\t\\x20-\\x7e\\x80-\\xff]*$",
    words: "a header value: no line breaks, no control characters",
  },
  urlPath: {
    pattern: "^(/([^/?#\\s{}]|\\{(/([^/~{}?#\\s]|~[01])*)+\\})+)+$",
    words:
      "a path such as /activities or /projects/{/projectId}/tasks: begins with `/`, ends without one, has no query",
  },
  urlTemplate: {
    pattern: "^(/|\\{(path|item)\\})([^#\\s{}]|\\{(path|item|id)\\}|\\{(/([^/~{}?#\\s]|~[01])*)+\\})*$",
    words:
      "a path such as {path}/{id} or {item}/archive?by=us, in which {path}, {item}, {id} and {/pointers} stand for values",
  },
  lookup: {
    pattern: "^(?=.*\\{tempId\\})(\\{path\\}|/)([^\\s{#]|\\{(path|tempId)\\}|\\{(?![A-Za-z]*\\}))*$",
    words: "a path with {tempId} in it, such as {path}?externalRef={tempId}",
  },
  since: {
    pattern: "^[^\\s=]+(=.*\\{since(Ms|Seconds)?\\}.*)?$",
    words: "a query parameter's name, or name=value with {since}, {sinceMs} or {sinceSeconds} in the value",
  },
  status: {
    pattern: "^[345][0-9][0-9]$",
    words: "an HTTP status of a failure, 300 to 599",
  },
  recordScope: {
    pattern: "^(?!role:)[A-Za-z][A-Za-z0-9_.-]*(:([^{}\\s]+|\\{(/([^/~{}]|~[01])*)+\\}))?$",
    words: "a scope such as org, group:oslo or user:{/mentor}, with a JSON Pointer in the braces",
  },
  tokenScope: {
    pattern: "^(?!role:)[A-Za-z][A-Za-z0-9_.-]*(:([^{}\\s]+|\\{[^{}]+\\}))?$",
    words: "a scope such as org, group:oslo or user:{sub}, with a claim's name in the braces",
  },
  fcmProject: {
    pattern: "^[a-z0-9][a-z0-9.:-]*$",
    words: "a Firebase project's ID: lower-case letters, digits and `-`",
  },
  writeRule: {
    pattern: "^(role:[^{}\\s]+|(?!role:)[A-Za-z][A-Za-z0-9_.-]*(:([^{}\\s]+|\\{(/([^/~{}]|~[01])*)+\\}))?)$",
    words: "a scope such as org or user:{/mentor}, or a role such as role:coordinator",
  },
} as const;

const wordsOfPattern = new Map<string, string>(
  Object.values(patterns).map(({ pattern, words }) => [pattern, words]),
);

/** What a string that must match `pattern` should look like. */
export function wordsOf(pattern: string): string {
  return wordsOfPattern.get(pattern) ?? `text that matches ${pattern}`;
}
