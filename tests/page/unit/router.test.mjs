import assert from "node:assert/strict";
import { test } from "node:test";

import { parseRoute, routeUrl } from "../../../jobsvc/web/page/router.js";

function routeOf(url) {
  return parseRoute(new URL(url, "http://farm/"));
}

test("a URL without a job is the list", () => {
  assert.equal(routeOf("/?status=failed&q=shot").page, "jobs");
});

test("a URL with a job is the job, and with view=log its log", () => {
  assert.equal(routeOf("/?job=a").page, "job");
  const { page, id, fragment } = routeOf("/?job=a&view=log#L1200");
  assert.deepEqual([page, id, fragment], ["log", "a", "L1200"]);
});

test("a job id may contain any characters", () => {
  const id = 'a&b=c/../"<é>';
  assert.equal(routeOf(`/${routeUrl({ job: id })}`).id, id);
});

test("the URL of a page leaves empty values out and repeats lists", () => {
  assert.equal(routeUrl({ status: ["failed", "queued"], q: "" }), "?status=failed&status=queued");
  assert.equal(routeUrl({}), "./");
  assert.equal(routeUrl({ job: "a", view: "log" }, "L12"), "?job=a&view=log#L12");
});
