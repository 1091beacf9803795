//! The admin API in the envelope of the Cloudflare v4 API.
