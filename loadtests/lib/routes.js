/**
 * The routes that the journey visits, as the server names them (http_route), so that what k6 measures can be laid
 * beside what the server measures. What is written here is also what must have been visited: lib/thresholds.js.
 */
export const ROUTES = Object.freeze({
  webhook: '/api/v1/webhooks/telephony/{provider}/events/{kind}',
  login: '/api/v1/auth/login',
  me: '/api/v1/auth/me',
  calls: '/api/v1/calls',
  requests: '/api/v1/requests',
  request: '/api/v1/requests/{id}',
  comments: '/api/v1/requests/{id}/comments',
  transitions: '/api/v1/requests/{id}/transitions',
  assign: '/api/v1/requests/{id}/assign',
  history: '/api/v1/requests/{id}/history',
  sla: '/api/v1/requests/{id}/sla',
  masters: '/api/v1/users/masters',
  cities: '/api/v1/dictionaries/cities',
  callCentre: '/api/v1/reports/call-centre',
  business: '/api/v1/metrics/business',
});
