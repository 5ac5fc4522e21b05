/* cli/evidence_power.c - what dose would have been found, and how much more expected a figure is from a
 * student than from an innocent model (METHODS-evidence sections 7.6 and 8.1); see evidence.h. */
#include <math.h>
#include <string.h>

#include "base/size.h"
#include "cli/evidence.h"

enum { SIDE_MAX = 256, SIDE_MIN = 5 };

static double number_of(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

json_t *cli_power_json(const json_t *dosed)
{
    json_t *doses = json_array();
    double least = HUGE_VAL;
    size_t i, j;
    const json_t *a, *b;
    json_array_foreach(dosed, i, a)
    {
        const double dose = number_of(a, "dose");
        size_t n = 0, reached = 0;
        bool before = false;
        json_array_foreach(dosed, j, b)
        {
            const bool same = number_of(b, "dose") == dose;
            before |= same && j < i;
            n += same;
            reached += same && number_of(b, "log10_p") <= -5;
        }
        if (before)
            continue;
        (void)json_array_append_new(doses, json_pack("{s:f,s:I,s:I}", "dose", dose, "students", (json_int_t)n,
                                                     "reached", (json_int_t)reached));
        if (5 * reached >= 4 * n)
            least = fmin(least, dose);
    }
    json_t *o = json_pack("{s:o,s:O}", "doses", doses, "models", dosed);
    if (isfinite(least))
        (void)json_object_set_new(o, "least_dose", json_real(least));
    return o;
}

/* Kernel estimate of a density with Silverman's width. */
static double density(const double *x, size_t n, double at)
{
    double mean = 0, squares = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    const double width = fmax(1.06 * sqrt(squares / fmax((double)n - 1, 1)) * pow((double)n, -0.2), 0.05);
    for (size_t i = 0; i < n; i++)
        sum += exp(-0.5 * pow((at - x[i]) / width, 2)) / width;
    return sum / (double)n;
}

static size_t z_of(double z[SIDE_MAX], const json_t *models)
{
    const size_t n = rt_size_min(json_array_size(models), SIDE_MAX);
    for (size_t i = 0; i < n; i++)
        z[i] = number_of(json_array_get(models, i), "z");
    return n;
}

bool cli_likelihood_ratio(double *out, double z, const json_t *calibrated)
{
    double students[SIDE_MAX], controls[SIDE_MAX];
    const size_t n = z_of(students, json_object_get(json_object_get(calibrated, "power"), "models")),
                 m = z_of(controls, json_object_get(json_object_get(calibrated, "controls"), "models"));
    if (n < SIDE_MIN || m < SIDE_MIN || !isfinite(z))
        return false;
    const double bound = (double)rt_size_min(n, m), above = density(students, n, z),
                 below = density(controls, m, z);
    double ratio = below > 0 ? above / below : above > 0 ? bound : 1;
    if (!(above > 0) && !(below > 0)) { /* past both: the side that is nearer */
        double nearest[2] = {HUGE_VAL, HUGE_VAL};
        for (size_t i = 0; i < n; i++)
            nearest[0] = fmin(nearest[0], fabs(z - students[i]));
        for (size_t i = 0; i < m; i++)
            nearest[1] = fmin(nearest[1], fabs(z - controls[i]));
        ratio = nearest[0] < nearest[1] ? bound : 1 / bound;
    }
    *out = fmin(fmax(ratio, 1 / bound), bound);
    return true;
}
