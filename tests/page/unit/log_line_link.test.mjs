import assert from "node:assert/strict";
import { test } from "node:test";

import { isNamed, parseFragment } from "../../../jobsvc/web/page/log/line_link.js";

test("a fragment names a line, several lines, or a byte", () => {
  assert.deepEqual(parseFragment("L1200"), { unit: "L", from: 1200, to: 1200 });
  assert.deepEqual(parseFragment("L10-L20"), { unit: "L", from: 10, to: 20 });
  assert.deepEqual(parseFragment("L10-20"), { unit: "L", from: 10, to: 20 });
  assert.deepEqual(parseFragment("B5000000000"), { unit: "B", from: 5000000000, to: 5000000000 });
});

test("any other fragment names nothing", () => {
  for (const fragment of [undefined, "", "L", "Lx", "l5", "L-5", "L5-", "L1e9", "token=x", "L12345678901234567890"]) {
    assert.equal(parseFragment(fragment), null, fragment);
  }
});

test("lines are named by number, or by offset", () => {
  const line = { number: 12, offset: 500 };
  assert.deepEqual([isNamed(parseFragment("L12"), line), isNamed(parseFragment("L10-L11"), line)], [true, false]);
  assert.deepEqual([isNamed(parseFragment("B500"), line), isNamed(parseFragment("B501"), line)], [true, false]);
  assert.equal(isNamed(parseFragment("L0-L99"), { number: null, offset: 5 }), false);
  assert.equal(isNamed(null, line), false);
});
