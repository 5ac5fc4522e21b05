/* teacher/remote_fetch.c - one plain request: probes, uploads and downloads of batches. */
#include <stdlib.h>
#include <string.h>

#include "teacher/remote_internal.h"

static size_t on_body(char *data, size_t size, size_t n, void *context)
{
    rt_text *answer = context;
    rt_text_append(answer, data, size * n);
    return answer->failed ? 0 : size * n;
}

static bool add_form(CURL *easy, curl_mime **form, const rt_remote_plain *request)
{
    *form = curl_mime_init(easy);
    curl_mimepart *purpose = *form ? curl_mime_addpart(*form) : NULL;
    curl_mimepart *file = purpose ? curl_mime_addpart(*form) : NULL;
    return file && !curl_mime_name(purpose, "purpose") &&
           !curl_mime_data(purpose, "batch", CURL_ZERO_TERMINATED) && !curl_mime_name(file, "file") &&
           !curl_mime_filename(file, request->form_file) && !curl_mime_type(file, "application/jsonl") &&
           !curl_mime_data(file, request->body, request->body_size) &&
           !curl_easy_setopt(easy, CURLOPT_MIMEPOST, *form);
}

rt_status rt_remote_fetch(const rt_remote_plain *request, int *http_status, rt_text *answer, rt_error *err)
{
    rt_text line = {0};
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
    curl_mime *form = NULL;
    CURL *easy = curl_easy_init();
    *http_status = 0;
    bool ok = easy && headers && !curl_easy_setopt(easy, CURLOPT_URL, request->url) &&
              !curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) &&
              !curl_easy_setopt(easy, CURLOPT_WRITEDATA, answer) &&
              !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) &&
              !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") &&
              !curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(request->timeout_s * 1000));
    if (ok && request->key && request->key[0]) {
        rt_text_printf(&line, "Authorization: Bearer %s", request->key);
        ok = !line.failed && curl_slist_append(headers, line.data) != NULL;
    }
    if (ok && request->form_file) {
        ok = add_form(easy, &form, request);
    } else if (ok && request->body) {
        ok = curl_slist_append(headers, "Content-Type: application/json") != NULL &&
             !curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size) &&
             !curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body);
    }
    if (ok && !request->body && strcmp(request->method, "POST") == 0)
        ok = !curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, 0L) &&
             !curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
    ok = ok && !curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    const CURLcode code = ok ? curl_easy_perform(easy) : CURLE_OUT_OF_MEMORY;
    long http = 0;
    if (code == CURLE_OK)
        (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &http);
    *http_status = (int)http;
    curl_mime_free(form);
    curl_slist_free_all(headers);
    if (easy)
        curl_easy_cleanup(easy);
    rt_text_deinit(&line);
    return code == CURLE_OK ? RT_OK
                            : rt_error_set(err, RT_IO, "%.200s: %s", request->url, curl_easy_strerror(code));
}
