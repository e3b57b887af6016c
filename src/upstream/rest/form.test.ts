import { expect, test } from "vitest";

import { toForm } from "./form.ts";

test.for([
  ["{}", ""],
  [
    '{"a":"x y&z=æ","b":90071992547409931234,"c":true,"d":null}',
    "a=x%20y%26z%3D%C3%A6&b=90071992547409931234&c=true&d=",
  ],
  ['{"address":{"city":"Oslo","geo":{"lat":1.50}}}', "address%5Bcity%5D=Oslo&address%5Bgeo%5D%5Blat%5D=1.50"],
  ['{ "tags": [ "a", 2, null ] }', "tags%5B%5D=a&tags%5B%5D=2&tags%5B%5D="],
] as const)("%s is the form %s", ([body, form]) => {
  expect(toForm(body)).toBe(form);
});

test.for([
  '{"a":{}}',
  '{"a":[]}',
  '{"a":[{"b":1}]}',
  '{"a":[[1]]}',
  '{"a[b]":1}',
  String.raw`{"a":"\ud800"}`,
])("%s can't be said in a form, and is not sent", (body) => {
  expect(() => toForm(body)).toThrow(expect.objectContaining({ certainty: "not-sent", disposition: "park" }));
});
