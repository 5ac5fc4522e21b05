/* serve/forwarded.c - see forwarded.h. */
#include "serve/forwarded.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

static bool parse_address(unsigned char out[16], const char *text)
{
    memcpy(out, mapped, sizeof mapped);
    return inet_pton(AF_INET, text, out + 12) == 1 || inet_pton(AF_INET6, text, out) == 1;
}

static bool is_mapped(const unsigned char bytes[16]) { return memcmp(bytes, mapped, sizeof mapped) == 0; }

bool rt_network_parse(rt_network *out, const char *text)
{
    char address[64];
    const char *slash = strchr(text, '/');
    const size_t size = slash ? (size_t)(slash - text) : strlen(text);
    size_t bits;
    if (size >= sizeof address)
        return false;
    memcpy(address, text, size);
    address[size] = '\0';
    if (!parse_address(out->bytes, address))
        return false;
    const unsigned before = is_mapped(out->bytes) ? 96 : 0;
    out->bits = 128;
    if (!slash)
        return true;
    if (!rt_parse_count(&bits, slash + 1) || bits > 128 - before)
        return false;
    out->bits = before + (unsigned)bits;
    return true;
}

static bool is_in(const unsigned char address[16], const rt_network *network)
{
    const unsigned whole = network->bits / 8, rest = network->bits % 8;
    if (memcmp(address, network->bytes, whole) != 0)
        return false;
    return rest == 0 || ((address[whole] ^ network->bytes[whole]) >> (8 - rest)) == 0;
}

static bool is_trusted(const char *text, const rt_network *trusted, size_t n_trusted)
{
    unsigned char address[16];
    if (!parse_address(address, text))
        return false;
    for (size_t i = 0; i < n_trusted; i++)
        if (is_in(address, &trusted[i]))
            return true;
    return false;
}

/* Proxies write "1.2.3.4", "1.2.3.4:567", "::1" and "[::1]:567". */
bool rt_address_text(char out[64], const char *text, size_t size)
{
    char plain[64];
    unsigned char bytes[16];
    while (size && (*text == ' ' || *text == '\t')) {
        text++;
        size--;
    }
    while (size && (text[size - 1] == ' ' || text[size - 1] == '\t'))
        size--;
    if (size && *text == '[') {
        const char *end = memchr(text, ']', size);
        if (!end)
            return false;
        size = (size_t)(end - text - 1);
        text++;
    } else {
        const char *colon = memchr(text, ':', size);
        if (colon && !memchr(colon + 1, ':', size - (size_t)(colon + 1 - text)))
            size = (size_t)(colon - text);
    }
    if (size == 0 || size >= sizeof plain)
        return false;
    memcpy(plain, text, size);
    plain[size] = '\0';
    if (strlen(plain) != size || !parse_address(bytes, plain))
        return false;
    return is_mapped(bytes) ? inet_ntop(AF_INET, bytes + 12, out, 64) != NULL
                            : inet_ntop(AF_INET6, bytes, out, 64) != NULL;
}

void rt_forwarded_address(char address[64], const rt_http_head *head, const rt_network *trusted,
                          size_t n_trusted)
{
    for (size_t i = head->n_fields; i-- > 0;) {
        if (strcasecmp(head->fields[i].name, "x-forwarded-for") != 0)
            continue;
        const char *value = head->fields[i].value;
        size_t end = strlen(value);
        for (;;) {
            size_t begin = end;
            char next[64];
            while (begin > 0 && value[begin - 1] != ',')
                begin--;
            if (!is_trusted(address, trusted, n_trusted) ||
                !rt_address_text(next, value + begin, end - begin))
                return;
            memcpy(address, next, sizeof next);
            if (begin == 0)
                break;
            end = begin - 1;
        }
    }
}
