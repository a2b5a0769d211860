/** What the list knows of a job. Pure functions. */

const LONGEST_TEXT = 500;
const LONGEST_SEARCH_TEXT = 2000;

/** Return what the list shows of a job of `api/events`, and its `text` to search in. The size is bounded. */
export function summarize(job) {
  const { id, status, owner, progress, framesDone, framesTotal, stalled } = job;
  const { createdAt, startedAt, completedAt, estimatedCompletionAt } = job;
  const times = { createdAt, startedAt, completedAt, estimatedCompletionAt, created: Date.parse(createdAt) };
  const [phase, error] = [job.phase, job.error].map((text) => text?.slice(0, LONGEST_TEXT));
  const words = [id, owner, job.projectPath, phase, error, job.metadata && JSON.stringify(job.metadata)];
  const text = words.filter(Boolean).join("\n").slice(0, LONGEST_SEARCH_TEXT).toLowerCase();
  return { id, status, owner, progress, framesDone, framesTotal, stalled, phase, error, text, ...times };
}

/** Compare summaries in the order of the API's list: newest first, then by id. */
export function byAge(one, other) {
  return other.created - one.created || (one.id < other.id ? -1 : 1);
}
