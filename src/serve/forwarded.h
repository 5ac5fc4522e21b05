/* serve/forwarded.h - the client's address behind proxies: X-Forwarded-For, believed only as far as it was
 * written by addresses that the operator trusts.
 *
 * The peer is the client unless it is trusted; then the last address of the field is, unless that is trusted
 * too, and so on.  What is left of the first address that is not trusted was written by who wants to be taken
 * for somebody else, and is not read. */
#ifndef RT_SERVE_FORWARDED_H
#define RT_SERVE_FORWARDED_H

#include "serve/http_parse.h"

typedef struct rt_network {
    unsigned char bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
    unsigned bits;           /* of the prefix, 0..128 */
} rt_network;

/* "10.0.0.0/8", "fd00::/8", "127.0.0.1"; false: malformed. */
bool rt_network_parse(rt_network *out, const char *text);
/* The text of an address as it is logged and counted: an IPv4 address inside of IPv6 is written as IPv4.
 * false: it is none. */
bool rt_address_text(char out[64], const char *text, size_t size);
/* address: the peer's, and then the client's. */
void rt_forwarded_address(char address[64], const rt_http_head *head, const rt_network *trusted,
                          size_t n_trusted);

#endif
